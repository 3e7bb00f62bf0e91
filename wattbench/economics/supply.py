"""What one option can do: operating points of a replica, its rack, and the watts around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wattbench.core.energy import Boundary
from wattbench.core.errors import DocumentError, UsageError
from wattbench.economics.draw import overdrawn
from wattbench.economics.offers import HALF_WIDTH_FRACTION, Measured, Option
from wattbench.economics.quantity import Quantity
from wattbench.economics.scenario import Load, Scenario, Tier
from wattbench.economics.site import Footprint
from wattbench.hardware import (
    Figure,
    MachineProfile,
    ModelDescriptor,
    load_model,
    load_profile,
    roofline,
)
from wattbench.tpf.bands import Band
from wattbench.tpf.operating import (
    IDLE_FRACTION,
    OperatingPoint,
    filled_like,
    modelled_points,
    with_power,
)
from wattbench.tpf.table import line_of, read_table

IDLE_RANGE = (0.07, 0.3)
"""Idle power over the design power where nobody published it, around `IDLE_FRACTION`."""
MOST_USERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One machine that may be bought.

    Attributes:
        option: As the scenario has it.
        machine: Its profile, blanks filled.
        points: Operating points of a replica, by concurrency.
        tier_points: Those of tiers with requests of their own lengths, or why there are none.
        together: Whether joules per token fall as speed rises, the power being the same: so it is
            with modelled points, whose two bands come from one uncertainty.
        users_limit: Users that one replica may answer at once, where the profile says so.
        footprint: One rack of it.
        provisioned: Watts of a device with its share of the node.
        notes: What was filled in, and from where.
        warnings: Measured points that contradict what a device may draw.
        others: The same with other, larger replicas.
    """

    option: Option
    machine: MachineProfile
    points: tuple[OperatingPoint, ...]
    tier_points: Mapping[str, tuple[OperatingPoint, ...] | str]
    together: bool
    users_limit: Band | None
    footprint: Footprint
    provisioned: Band
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    others: tuple[Line, ...] = ()

    @property
    def boundary(self) -> Boundary:
        """What the joules of the points include."""
        return self.points[0].boundary

    def in_tier(self, tier: Tier) -> Line:
        """The line with the points of a tier's own load.

        Raises:
            UsageError: If there are none.
        """
        found = self.tier_points.get(tier.name, self.points)
        if isinstance(found, str):
            raise UsageError(found)
        return replace(self, points=found)

    @property
    def known_as(self) -> str:
        """Name of its speed and joules: options that know them from the same place share them."""
        option = self.option
        measured = option.measured
        if measured is not None:
            machine = measured.machine or self.machine.name
            return f"{machine} of {measured.csv or measured.runs}"
        return f"points of {option.name}" if option.points else self.machine.name

    @property
    def device_count(self) -> int:
        """Devices of a replica."""
        return self.points[0].device_count


def lines_of(
    scenario: Scenario, stored: Mapping[str, Sequence[OperatingPoint]] | None = None
) -> dict[str, Line | str]:
    """Every option that is a machine, by its name, or why nothing can be said of it.

    Args:
        scenario: What is asked for.
        stored: Operating points of options that name stored runs, by the option's name.

    Raises:
        DocumentError: If a file that it names is wrong.
    """
    model = load_model(scenario.model)
    found: dict[str, Line | str] = {}
    for option in scenario.options:
        if option.machine is None:
            continue
        try:
            found[option.name] = _line(scenario, option, model, (stored or {}).get(option.name))
        except DocumentError as error:
            raise DocumentError(f"option {option.name}: {error}") from error
        except UsageError as error:
            found[option.name] = str(error)
    return found


def _line(
    scenario: Scenario,
    option: Option,
    model: ModelDescriptor,
    stored: Sequence[OperatingPoint] | None,
) -> Line:
    machine, notes = load_profile(str(option.machine)), list[str]()
    if option.like is not None:
        machine, taken = filled_like(machine, load_profile(option.like))
        if taken:
            notes.append(f"{option.name}: {', '.join(taken)} as {option.like}")
    measured: Sequence[OperatingPoint] = ()
    if option.points:
        measured = _written(option)
    elif option.measured is not None:
        measured = _read(scenario, option, option.measured) if option.measured.csv else stored or ()
        _check_measured(measured, option.measured)
    sizes: list[int] | list[None] = [None]
    if option.devices_per_replica and not measured:
        sizes = sorted(set(option.devices_per_replica))
    smallest, *others = (
        _of_size(scenario, option, (machine, model), measured, size) for size in sizes
    )
    return replace(smallest, notes=tuple(notes), others=tuple(others))


def _check_measured(points: Sequence[OperatingPoint], wanted: Measured) -> None:
    place = wanted.csv or f"runs {wanted.runs}"
    if not points:
        raise UsageError(f"measured: {place} was not read; a scenario's runs come from --db")
    if points[0].boundary == "facility":
        raise UsageError(f"measured: {place}: joules at the facility have a PUE inside")
    if len({point.device_count for point in points}) > 1:
        raise UsageError(f"measured: {place}: replicas of unlike size; keep one sweep")
    counts = [point.concurrency_count for point in points]
    twice = next((count for count in counts if counts.count(count) > 1), None)
    if twice is not None:
        rates = ", ".join(
            f"{point.output_tokens_per_s.value:g}"
            for point in points
            if point.concurrency_count == twice
        )
        raise UsageError(
            f"measured: {place} has concurrency {twice:g} several times ({rates} tokens/s); keep "
            f"one sweep"
        )


def _of_size(
    scenario: Scenario,
    option: Option,
    pair: tuple[MachineProfile, ModelDescriptor],
    measured: Sequence[OperatingPoint],
    size: int | None,
) -> Line:
    machine, model = pair
    points = measured or _modelled(scenario.load, machine, model, size)
    together = not measured
    provisioned = _provisioned(option, machine)
    footprint = _footprint(scenario, option, machine, provisioned, points[0].device_count)
    known = machine.serving.concurrency if machine.serving and together else None
    return Line(
        option=option,
        machine=machine,
        points=tuple(sorted(points, key=lambda point: point.concurrency_count)),
        tier_points={
            tier.name: _of_tier(measured, tier.load, machine, model, size)
            for tier in scenario.demand.tiers
            if tier.load is not None
        },
        together=together,
        users_limit=band_of(known) if known else None,
        footprint=footprint,
        provisioned=provisioned,
        warnings=tuple(overdrawn(option.name, measured, machine, provisioned)),
    )


def _of_tier(
    measured: Sequence[OperatingPoint],
    lengths: Load,
    machine: MachineProfile,
    model: ModelDescriptor,
    size: int | None,
) -> tuple[OperatingPoint, ...] | str:
    if measured:
        return "its points are of the scenario's load, and the tier has one of its own"
    try:
        return tuple(_modelled(lengths, machine, model, size))
    except UsageError as error:
        return str(error)


def _modelled(
    lengths: Load, machine: MachineProfile, model: ModelDescriptor, size: int | None
) -> list[OperatingPoint]:
    held_tokens = roofline(with_power(machine), model, size).kv_capacity_tokens
    room = held_tokens // (lengths.input_tokens + lengths.output_tokens)
    grid = {round(2 ** (step / 2)) for step in range(24)}
    users = sorted({n for n in grid if n < room} | {min(max(room, 1), MOST_USERS)})
    return modelled_points(
        machine,
        model,
        users,
        input_tokens=lengths.input_tokens,
        output_tokens=lengths.output_tokens,
        devices=size,
    )


def _written(option: Option) -> list[OperatingPoint]:
    return [
        OperatingPoint(
            concurrency_count=point.concurrency,
            device_count=_size(option),
            output_tokens_per_s=_measured(point.output_tokens_per_s),
            energy_per_output_token_joules=_measured(point.energy_per_output_token_joules),
            boundary=point.boundary,
        )
        for point in option.points
    ]


def _size(option: Option) -> int:
    assert option.devices_per_replica is not None
    return option.devices_per_replica[0]


def _measured(number: Quantity, fraction: float = HALF_WIDTH_FRACTION) -> Band:
    band = number.band
    if band is None:
        raise UsageError("a measured figure of 0 is none; leave the point out")
    if number.low is None:
        return Band(
            value=band.value,
            low=band.value / (1 + fraction),
            high=band.value * (1 + fraction),
            kind=band.kind,
        )
    return band


def _read(scenario: Scenario, option: Option, wanted: Measured) -> list[OperatingPoint]:
    assert wanted.csv is not None
    assert wanted.boundary is not None
    path = scenario.folder / wanted.csv
    table = read_table(path, ["machine", "model"])
    rows = table.groups().get((str(wanted.machine), str(wanted.model)))
    if rows is None:
        known = ", ".join(f"{machine} with {model}" for machine, model in table.groups())
        raise DocumentError(
            f"{path}: no row of {wanted.machine} with {wanted.model} (there is {known})"
        )
    points = []
    for row in rows:
        joules = float(table.energy_per_output_token_joules[row])
        rate = float(table.output_tokens_per_s[row])
        rate = rate if np.isfinite(rate) else float(table.mean_power_watts[row]) / joules
        if not np.isfinite(rate):
            raise DocumentError(
                f"{path}: line {line_of(path, int(row))}: has neither output_tokens_per_s nor "
                f"mean_power_watts; write one of them, or leave the row out"
            )
        half = wanted.band_fraction.value if wanted.band_fraction else HALF_WIDTH_FRACTION
        points.append(
            OperatingPoint(
                concurrency_count=float(table.concurrency_count[row]),
                device_count=_size(option),
                output_tokens_per_s=_measured(Quantity(value=rate, kind="measured"), half),
                energy_per_output_token_joules=_measured(
                    Quantity(value=joules, kind="measured"), half
                ),
                boundary=wanted.boundary,
            )
        )
    return points


def _provisioned(option: Option, machine: MachineProfile) -> Band:
    if option.provisioned_watts_per_device is not None:
        band = option.provisioned_watts_per_device.band
        assert band is not None
        return band
    node = machine.node
    if node is not None and node.provisioned_power_per_accelerator is not None:
        return band_of(node.provisioned_power_per_accelerator)
    if node is not None and node.maximum_power is not None and node.accelerators is not None:
        return band_of(node.maximum_power).times(1 / node.accelerators.value)
    raise UsageError(
        f"hardware profile {machine.name!r} has neither provisioned_power_per_accelerator nor the "
        f"maximum_power of a node: how many fit is unknown. Write provisioned_watts_per_device"
    )


def _footprint(
    scenario: Scenario,
    option: Option,
    machine: MachineProfile,
    provisioned: Band,
    devices_per_replica: int,
) -> Footprint:
    accelerators = machine.node.accelerators if machine.node else None
    per_node = option.devices_per_node or (int(accelerators.value) if accelerators else None)
    _check_nodes(devices_per_replica, per_node)
    limit_watts = 1e3 * scenario.site.rack_kw.value
    # Circuits are laid out for the most that a machine may draw, not for the middle of a range.
    device_watts = provisioned.high
    if per_node is None and option.devices_per_rack is None:
        raise UsageError(
            f"hardware profile {machine.name!r} does not say how many devices a node has; write "
            f"devices_per_node"
        )
    devices = option.devices_per_rack
    if devices is None:
        assert per_node is not None
        devices = per_node * int(limit_watts // (per_node * device_watts))
    if devices == 0 or devices * device_watts > limit_watts * (1 + 1e-9):
        least = devices or per_node or 1
        raise UsageError(
            f"{least} devices are provisioned with {least * device_watts / 1e3:.1f} kW and a rack "
            f"takes rack_kw = {limit_watts / 1e3:g} kW; write fewer devices, or a larger rack"
        )
    return Footprint(
        rack_watts=devices * device_watts,
        devices_per_rack=devices,
        devices_per_replica=devices_per_replica,
        available_count=option.devices_available,
        option=option.name,
    )


def _check_nodes(devices_per_replica: int, per_node: int | None) -> None:
    small, large = sorted((devices_per_replica, per_node or devices_per_replica))
    if large % small:
        raise UsageError(
            f"devices_per_replica {devices_per_replica} and the {per_node} devices of a node: a "
            f"replica must divide a node or be whole nodes, else replicas share nodes; write "
            f"another size, or the devices_per_node that are used"
        )


def band_of(figure: Figure) -> Band:
    """A figure of a profile with its range."""
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return Band(value=figure.value, low=low, high=high, kind=figure.evidence)


def idle_power(machine: MachineProfile) -> Band:
    """Watts of a device with the model loaded and nothing to do, as its profile meters them."""
    power = machine.power
    if power is not None and power.idle_context is not None:
        return band_of(power.idle_context)
    if power is None or power.tdp is None:
        raise UsageError(
            f"hardware profile {machine.name!r} has neither idle nor design power; add one with "
            f"its source to a copy of the file"
        )
    tdp = power.tdp.value
    low, high = IDLE_RANGE
    return Band(value=IDLE_FRACTION * tdp, low=low * tdp, high=high * tdp, kind="assumed")
