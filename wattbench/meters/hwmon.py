"""Power and energy that Linux drivers show as files: GPUs, Grace, Jetson, sockets, batteries.

    <root>/sys/class/hwmon/hwmon*/energy1_input           counter [µJ]; preferred
    <root>/sys/class/hwmon/hwmon*/power1_average, _input  power [µW]
    <root>/sys/class/hwmon/hwmon*/in1_input, curr1_input  a rail [mV] × [mA]
    <root>/sys/class/power_supply/BAT*/power_now          battery [µW], or current × voltage

Drivers whose meaning is known are read (``ROLES``): what each of their channels includes, and which
channel contains it. Others, such as power supplies, drives or fans, are left alone unless ``chip``
names them, and then ``boundary`` must say what they include. A battery gives the power of the whole
machine while it discharges, and none otherwise; ``energy_now`` is used where there is no power.

Counters of i915 and xe are extended to 64 bits by the driver, which must be read before the 32-bit
register goes round twice. Where a driver does not extend them, the integrator finds the range.

Prior on readings, an assumption: a gain within ± 10 %; hardly any maker states an accuracy.

Source: Linux, Documentation/hwmon (sysfs-interface, amd_energy, acpi_power_meter, ina3221),
Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon and sysfs-class-power,
Documentation/gpu/amdgpu; NVIDIA, *Grace Performance Tuning Guide*, power telemetry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from wattbench.core.energy import Boundary, EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.meters.sysfs import check_root, read_int, read_text, readings
from wattbench.plugins import PluginContext, option

JOULES_PER_UWH = 3.6e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class HwmonOptions:
    """Options of ``--meter hwmon``."""

    root: str = option("/", "folder that stands for the root of the file system")
    chip: str | None = option(None, "pattern of the drivers or labels to read; none: all known")
    boundary: Boundary | None = option(None, "what the power includes; none: as the driver tells")
    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    gain_half_width_fraction: float = option(0.1, "prior on the gain: uniform within this")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        check_root(self.root, self.period_s)


class Role(NamedTuple):
    """What a channel of a driver means.

    Attributes:
        chip: Pattern of the driver's name.
        label: Pattern of the channel's label.
        name: Domain; ``{n}`` counts devices, ``{0}`` is what the label's pattern caught.
        boundary: What it includes.
        parents: Domains that contain it, the nearest first.
        named_only: Read only if ``chip`` matches the label.
    """

    chip: str
    label: str
    name: str
    boundary: Boundary
    parents: tuple[str, ...] = ()
    named_only: bool = False


ROLES = (
    Role("i915", ".*", "gpu:{n}", "chip"),
    Role("i915_gt(?:\\d+)", ".*", "gpu:{n}/{chip}", "chip", ("gpu:{n}",)),
    Role("xe", "card", "gpu:{n}", "board"),
    Role("xe", "pkg|", "gpu:{n}/pkg", "chip", ("gpu:{n}",)),
    Role("xe", "(.+)", "gpu:{n}/{0}", "chip", ("gpu:{n}",)),
    # On a chip with CPU cores, amdgpu shows the power of all of it.
    Role("amdgpu", ".*", "gpu:{n}", "chip"),
    Role("amd_energy", "Esocket0*(\\d+)", "cpu_package:{0}", "package"),
    # Each read of a core wakes it up: not unless somebody asks.
    Role("amd_energy", "Ecore0*(\\d+)", "core:{0}", "package", ("cpu_package:0",), True),
    Role("power_meter", "Module Power Socket (\\d+)", "module:{0}", "module"),
    Role("power_meter", "Grace Power Socket (\\d+)", "grace:{0}", "package", ("module:{0}",)),
    Role(
        "power_meter", "CPU Power Socket (\\d+)", "cpu:{0}", "package", ("grace:{0}", "module:{0}")
    ),
    Role(
        "power_meter",
        "SysIO Power Socket (\\d+)",
        "sysio:{0}",
        "package",
        ("grace:{0}", "module:{0}"),
    ),
    Role("power_meter", ".*", "node:{n}", "node"),
    Role("ina3221", "VDD_IN|POM_5V_IN|VIN", "module:0", "module"),
    # The memory regulator of Jetson AGX Orin hangs on the system rail.
    Role("ina3221", "(VDDQ_VDD2_1V8AO)", "rail:{0}", "module", ("module:0", "rail:VIN_SYS_5V0")),
    Role("ina3221", "(.+)", "rail:{0}", "module", ("module:0",)),
    Role("BAT.*", "battery", "battery:{chip}", "node"),
)
ANY = Role(".*", "(.*)", "{chip}:{0}", "node")
"""A channel of a driver that nobody knows, read because the user named it and its boundary."""

Sort = Literal["energy", "average", "input", "rail", "battery", "charge"]
Ways = tuple[tuple[Sort, tuple[str, ...]], ...]
"""Files that a value can be read from, the best first."""
KINDS: dict[str, Ways] = {
    "energy": (("energy", ("energy{}_input",)),),
    "power": (("average", ("power{}_average",)), ("input", ("power{}_input",))),
    "in": (("rail", ("in{}_input", "curr{}_input")),),
}
BATTERY: Ways = (
    ("battery", ("power_now",)),
    ("battery", ("current_now", "voltage_now")),
    ("charge", ("energy_now", "energy_full")),
)
INA3221_RAILS = 3
"""Channels of this chip that are rails; those above are shunt voltages and sums."""


class Channel(NamedTuple):
    """One source of a driver.

    Attributes:
        chip: The driver's name.
        label: What the driver calls the channel.
        sort: Which files it is read from.
        files: Those files.
        device: What the driver drives, such as a PCI address.
    """

    chip: str
    label: str
    sort: Sort
    files: tuple[Path, ...]
    device: str


class HwmonMeter(PolledMeter):
    """Reads power and energy files of Linux drivers: GPUs, Grace, Jetson, sockets, batteries."""

    Options = HwmonOptions

    def __init__(self, options: HwmonOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Find the channels.

        Raises:
            MeterError: If none is known or none may be read, with the way out.
        """
        return _Files(self._options)


class _Files(Source):
    def __init__(self, options: HwmonOptions) -> None:
        self._place = Path(options.root) / "sys/class"
        found = [*_channels(self._place / "hwmon"), *_batteries(self._place / "power_supply")]
        wanted = [(channel, role) for channel in found if (role := _role(channel, options))]
        usable = [(c, role, read) for c, role in wanted if (read := _reader(c)) is not None]
        if not usable:
            raise _nothing(self._place, found, options)
        self.domains = _tree([(c, role) for c, role, _ in usable], options)
        self._reads = [(d.name, u[2]) for d, u in zip(self.domains, usable, strict=True)]

    def read(self, now_s: Clock) -> list[Reading]:
        return readings(now_s, self._reads, self._place)


def _channels(place: Path) -> Iterator[Channel]:
    """Channels of every driver: its energy, else its power, else its rails."""
    for folder in sorted(place.glob("hwmon*"), key=lambda f: (len(f.name), f.name)):
        chip, link = read_text(folder / "name"), folder / "device"
        device = link.resolve().name if link.exists() else f"{chip or '?'}@{folder.name}"
        # Some drivers put their files beside the device instead.
        for home in (folder, link):
            found = _of_driver(home, chip, device)
            yield from found
            if found:
                break


def _of_driver(home: Path, chip: str, device: str) -> list[Channel]:
    for kind, ways in KINDS.items():
        names = (re.match(rf"{kind}(\d+)_", path.name) for path in home.glob(f"{kind}*_*"))
        found = []
        for number in sorted({int(name[1]) for name in names if name}):
            stem = home / f"{kind}{number}"
            texts = [
                read_text(stem.with_name(f"{stem.name}_{end}")) for end in ("label", "oem_info")
            ]
            label = next(filter(None, texts), "")
            off = label == "NC" or read_text(stem.with_name(f"{stem.name}_enable")) == "0"
            first = _first(home, ways, number)
            if first and not off and not (chip == "ina3221" and number > INA3221_RAILS):
                found.append(Channel(chip, label, *first, device))
        if found:
            return found
    return []


def _batteries(place: Path) -> Iterator[Channel]:
    for folder in sorted(place.glob("BAT*")):
        first = _first(folder, BATTERY)
        if first and read_text(folder / "status") == "Discharging":
            yield Channel(folder.name, "battery", *first, folder.name)


def _first(home: Path, ways: Ways, number: int = 0) -> tuple[Sort, tuple[Path, ...]] | None:
    """The best way to read a value that has all its files."""
    for sort, names in ways:
        files = tuple(home / name.format(number) for name in names)
        if all(file.exists() for file in files):
            return sort, files
    return None


def _role(channel: Channel, options: HwmonOptions) -> Role | None:
    """What a channel means, None if it is not to be read."""
    role = next(
        (
            r
            for r in ROLES
            if re.fullmatch(r.chip, channel.chip) and re.fullmatch(r.label, channel.label)
        ),
        None,
    )
    if options.chip is None:
        return None if role is None or role.named_only else role
    by_label = fnmatchcase(channel.label, options.chip)
    if not by_label and not fnmatchcase(channel.chip, options.chip):
        return None
    if role is None and options.boundary is None:
        raise MeterError(
            f"what {channel.chip} {channel.label!r} includes is not known",
            "Add boundary=…, such as boundary=board.",
        )
    role = role or ANY
    return role if by_label or not role.named_only else None


def _reader(channel: Channel) -> Callable[[], float] | None:
    """How to read a channel; None if it gives no value.

    Raises:
        MeterError: If this user must not read it.
    """
    read = partial(_charge_joules if channel.sort == "charge" else _product, channel)
    try:
        read()
    except PermissionError as error:
        raise MeterError(
            f"{channel.files[0]} must not be read by this user",
            f"sudo chmod a+r {channel.files[0].parent}/*_input, or name other drivers with chip=…",
        ) from error
    except (OSError, ValueError):
        return None
    return read


def _product(channel: Channel) -> float:
    """Power [W] or counter [J] of a channel."""
    if channel.sort == "battery":
        _demand_discharging(channel)
    first, *others = (read_int(path) for path in channel.files)
    if not others:
        return abs(first) * 1e-6 if channel.sort == "battery" else first * 1e-6
    return abs(first * others[0]) * (1e-12 if channel.sort == "battery" else 1e-6)


def _charge_joules(channel: Channel) -> float:
    """Energy that a battery has given since it was full [J]."""
    _demand_discharging(channel)
    now_uwh, full_uwh = (read_int(path) for path in channel.files)
    return (full_uwh - now_uwh) * JOULES_PER_UWH


def _demand_discharging(channel: Channel) -> None:
    status = read_text(channel.files[0].parent / "status")
    if status != "Discharging":
        raise ValueError(f"{channel.chip} is {status or 'gone'}")


def _tree(found: list[tuple[Channel, Role]], options: HwmonOptions) -> list[EnergyDomain]:
    """Domains of the channels, each below the nearest one that contains it."""
    counts: dict[str, dict[str, int]] = {}
    domains: list[EnergyDomain] = []
    parents: list[list[str]] = []
    for channel, role in found:
        devices = counts.setdefault(role.name.partition(":")[0], {})
        caught = re.fullmatch(role.label, channel.label)
        assert caught is not None
        groups, n = caught.groups(), devices.setdefault(channel.device, len(devices))
        name, *chain = (
            pattern.format(*groups, n=n, chip=channel.chip)
            for pattern in (role.name, *role.parents)
        )
        if any(name == domain.name for domain in domains):
            name = f"{name}@{channel.files[0].parent.name}/{channel.files[0].name}"
        domains.append(_domain(name, channel, role, options))
        parents.append(chain)
    names = {domain.name for domain in domains}
    outer = [next((parent for parent in chain if parent in names), None) for chain in parents]
    # A part is another device than the whole, with which its energy need not agree.
    return [
        replace(d, parent=parent, devices=(f"{d.devices[0]}/{c.label or c.chip}",)) if parent else d
        for d, parent, (c, _) in zip(domains, outer, found, strict=True)
    ]


def _domain(name: str, channel: Channel, role: Role, options: HwmonOptions) -> EnergyDomain:
    counter = channel.sort in ("energy", "charge")
    boundary = options.boundary or role.boundary
    window_s = _window_s(channel)
    direct = channel.sort in ("rail", "battery", "charge")
    files = " x ".join(file.name for file in channel.files)
    return EnergyDomain(
        name=name,
        meter="hwmon",
        quantity="energy_counter" if counter else "power",
        kind="counter" if counter else "integrated",
        boundary=boundary,
        current="dc" if direct and boundary in ("node", "rack", "facility") else None,
        devices=(channel.device,),
        method=f"{files} of {channel.chip} {channel.label}".strip(),
        averaging_window_s=window_s,
        coverage_fraction=1.0 if counter or window_s else None,
        gain_half_width_fraction=options.gain_half_width_fraction,
        on_client_host=True,
    )


def _window_s(channel: Channel) -> float | None:
    """What a mean is over [s], if the driver tells; it does in milliseconds."""
    if channel.sort != "average":
        return None
    path = channel.files[0]
    try:
        return read_int(path.with_name(f"{path.name}_interval")) / 1000 or None
    except (OSError, ValueError):
        return None


def _nothing(place: Path, found: list[Channel], options: HwmonOptions) -> MeterError:
    others = sorted({text for f in place.glob("hwmon/*/name") if (text := read_text(f))})
    seen = sorted({f"{c.chip} {c.label!r}" if c.label else c.chip for c in found})
    wanted = f"that chip={options.chip!r} means" if options.chip else "whose meaning is known"
    there = ", ".join(seen) or ", ".join(others) or "no driver at all"
    resting = [
        f"{f.parent.name} is {read_text(f)}, and shows power only while it discharges: unplug it"
        for f in sorted(place.glob("power_supply/BAT*/status"))
        if read_text(f) != "Discharging"
    ]
    return MeterError(
        f"{place}/hwmon has no power and no energy {wanted} (there is {there})",
        "; ".join(resting) or "Name one with chip=… and boundary=…, or use --meter cpu-load.",
    )
