"""What one option can do: operating points of a replica, its rack, and the watts around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wattbench.core.energy import Boundary
from wattbench.core.errors import DocumentError, UsageError
from wattbench.economics.dials import Dials
from wattbench.economics.quantity import Quantity
from wattbench.economics.scenario import Option, Scenario, Table
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
from wattbench.tpf.table import read_table

NODE_OVER_BOARD = Band(value=1.7, low=1.5, high=1.9, kind="assumed")
"""Wall power over that of the boards, servers in general under load: docs/hardware.md."""
IDLE_RANGE = (0.07, 0.3)
"""Idle power over the design power where nobody published it, around `IDLE_FRACTION`."""
MEASURED_HALF_WIDTH = 0.1
NARROW = ("chip", "board", "module", "package")
"""Boundaries that leave out the rest of the server."""
MOST_USERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One machine that may be bought.

    Attributes:
        option: As the scenario has it.
        machine: Its profile, blanks filled.
        points: Operating points of a replica, by concurrency.
        together: Whether joules per token fall as speed rises, the power being the same: so it is
            with modelled points, whose two bands come from one uncertainty.
        users_limit: Users that one replica may answer at once, where the profile says so.
        footprint: One rack of it.
        provisioned: Watts of a device with its share of the node.
        notes: What was filled in, and from where.
    """

    option: Option
    machine: MachineProfile
    points: tuple[OperatingPoint, ...]
    together: bool
    users_limit: Band | None
    footprint: Footprint
    provisioned: Band
    notes: tuple[str, ...]

    @property
    def boundary(self) -> Boundary:
        """What the joules of the points include."""
        return self.points[0].boundary

    @property
    def known_as(self) -> str:
        """Name of its speed and joules: options that know them from the same place share them."""
        option = self.option
        if option.measured is not None:
            return f"{option.measured.machine} of {option.measured.csv}"
        return f"points of {option.name}" if option.points else self.machine.name

    @property
    def device_count(self) -> int:
        """Devices of a replica."""
        return self.points[0].device_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A replica at the speed of a tier, at the dials' settings: numbers or draws.

    NaN where even one user does not get that speed.
    """

    users: Any
    tokens_per_s: Any
    meter_joules: Any
    node_joules: Any
    idle_watts: Any


def lines_of(scenario: Scenario) -> dict[str, Line | str]:
    """Every option that is a machine, by its name, or why nothing can be said of it.

    Raises:
        DocumentError: If a file that it names is wrong.
    """
    model = load_model(scenario.model)
    found: dict[str, Line | str] = {}
    for option in scenario.options:
        if option.machine is None:
            continue
        try:
            found[option.name] = _line(scenario, option, option.machine, model)
        except DocumentError as error:
            raise DocumentError(f"option {option.name}: {error}") from error
        except UsageError as error:
            found[option.name] = str(error)
    return found


def _line(scenario: Scenario, option: Option, name: str, model: ModelDescriptor) -> Line:
    machine, notes = load_profile(name), []
    if option.like is not None:
        machine, taken = filled_like(machine, load_profile(option.like))
        if taken:
            notes.append(f"{option.name}: {', '.join(taken)} as {option.like}")
    if option.points:
        points, together = _written(option), False
    elif option.measured is not None:
        points, together = _read(scenario, option, option.measured), False
    else:
        points, together = _modelled(scenario, machine, model), True
    provisioned = _provisioned(option, machine)
    footprint = _footprint(scenario, option, machine, provisioned, points[0].device_count)
    known = machine.serving.concurrency if machine.serving and together else None
    return Line(
        option=option,
        machine=machine,
        points=tuple(sorted(points, key=lambda point: point.concurrency_count)),
        together=together,
        users_limit=_band(known) if known else None,
        footprint=footprint,
        provisioned=provisioned,
        notes=tuple(notes),
    )


def _modelled(
    scenario: Scenario, machine: MachineProfile, model: ModelDescriptor
) -> list[OperatingPoint]:
    lengths = scenario.load
    held_tokens = roofline(with_power(machine), model).kv_capacity_tokens
    room = held_tokens // (lengths.input_tokens + lengths.output_tokens)
    grid = {round(2 ** (step / 2)) for step in range(24)}
    users = sorted({n for n in grid if n < room} | {min(max(room, 1), MOST_USERS)})
    return modelled_points(
        machine,
        model,
        users,
        input_tokens=lengths.input_tokens,
        output_tokens=lengths.output_tokens,
    )


def _written(option: Option) -> list[OperatingPoint]:
    return [
        OperatingPoint(
            concurrency_count=point.concurrency,
            device_count=option.devices_per_replica or 1,
            output_tokens_per_s=_measured(point.output_tokens_per_s),
            energy_per_output_token_joules=_measured(point.energy_per_output_token_joules),
            boundary=point.boundary,
        )
        for point in option.points
    ]


def _measured(number: Quantity, fraction: float = MEASURED_HALF_WIDTH) -> Band:
    band = number.band
    if band is None:
        raise UsageError("a measured figure of 0 is none; leave the point out")
    kind = number.kind if "kind" in number.model_fields_set else "measured"
    if number.low is None:
        return Band(
            value=band.value,
            low=band.value / (1 + fraction),
            high=band.value * (1 + fraction),
            kind=kind,
        )
    return replace(band, kind=kind)


def _read(scenario: Scenario, option: Option, wanted: Table) -> list[OperatingPoint]:
    path = scenario.folder / wanted.csv
    table = read_table(path, ["machine", "model"])
    rows = table.groups().get((wanted.machine, wanted.model))
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
                f"{path}: a row has neither output_tokens_per_s nor mean_power_watts"
            )
        half = wanted.band_fraction.value
        points.append(
            OperatingPoint(
                concurrency_count=float(table.concurrency_count[row]),
                device_count=option.devices_per_replica or 1,
                output_tokens_per_s=_measured(Quantity(value=rate), half),
                energy_per_output_token_joules=_measured(Quantity(value=joules), half),
                boundary=wanted.boundary,
            )
        )
    users = [point.concurrency_count for point in points]
    if len(set(users)) < len(users):
        raise DocumentError(
            f"{path}: {wanted.machine} with {wanted.model} has several rows of one concurrency; "
            f"keep one sweep"
        )
    return points


def _provisioned(option: Option, machine: MachineProfile) -> Band:
    if option.provisioned_watts_per_device is not None:
        band = option.provisioned_watts_per_device.band
        assert band is not None
        return band
    node = machine.node
    if node is not None and node.provisioned_power_per_accelerator is not None:
        return _band(node.provisioned_power_per_accelerator)
    if node is not None and node.maximum_power is not None and node.accelerators is not None:
        return _band(node.maximum_power).times(1 / node.accelerators.value)
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
    )


def _band(figure: Figure) -> Band:
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return Band(value=figure.value, low=low, high=high, kind=figure.evidence)


def served(
    line: Line, scenario: Scenario, speed: Any, dials: Dials, speed_up_ratio: Any = 1.0
) -> Served:
    """A replica with the most users that each still get a speed.

    Args:
        line: The machine.
        scenario: Where the drift of engines stands.
        speed: Tokens per second that each user is to see.
        dials: Where the uncertain numbers stand.
        speed_up_ratio: Its speed over what the points say, at the same power.
    """
    option = line.option
    faster = speed_up_ratio
    if scenario.engine_drift_ratio is not None:
        name = f"engine drift: {option.engine}"
        faster = faster / dials.at(name, scenario.engine_drift_ratio, "speed")
    z = dials.normal(f"{line.known_as}: speed")
    z_joules = -z if line.together else dials.normal(f"{line.known_as}: joules")
    limit: Any = np.inf
    if line.users_limit is not None:
        limit = dials.at(f"{line.known_as}: users at once", line.users_limit, "speed")
    shape = np.broadcast_shapes(*map(np.shape, (z, z_joules, speed, faster, limit)))
    rates, joules = [], []
    for point in line.points:
        rate = point.output_tokens_per_s.at(z) * faster
        spent = point.energy_per_output_token_joules.at(z_joules) / faster
        rates.append(np.broadcast_to(rate, shape))
        joules.append(np.broadcast_to(spent, shape))
    _note_points(line, dials)
    users = np.minimum(_users(line, np.array(rates), speed), np.maximum(limit, 1))
    rate = _between(line, np.array(rates), users)
    metered = _between(line, np.array(joules), users)
    node_joules, idle_watts = _at_node(line, dials, metered, rate)
    return Served(
        users=users,
        tokens_per_s=rate,
        meter_joules=metered,
        node_joules=node_joules,
        idle_watts=np.minimum(idle_watts, node_joules * rate),
    )


def _note_points(line: Line, dials: Dials) -> None:
    widest = max(line.points, key=lambda p: p.output_tokens_per_s.high / p.output_tokens_per_s.low)
    dials.note(f"{line.known_as}: speed", widest.output_tokens_per_s, "speed")
    # Under one name with the speed, the joules only lend their kind.
    name = f"{line.known_as}: joules"
    dials.note(name, widest.energy_per_output_token_joules, "joules")


def _users(line: Line, rates: Any, speed: Any) -> Any:
    """Most users that each get a speed, between the points in logarithms."""
    counts = np.array([point.concurrency_count for point in line.points])
    shape = (-1,) + (1,) * (rates.ndim - 1)
    per_user = np.minimum.accumulate(rates / counts.reshape(shape), axis=0)
    reached = (per_user >= speed * (1 - 1e-9)).sum(axis=0)
    lower = np.clip(reached - 1, 0, len(counts) - 1)
    upper = np.clip(reached, 0, len(counts) - 1)
    near, far = (np.take_along_axis(per_user, p[None], axis=0)[0] for p in (lower, upper))
    gap = np.log(near / far)
    part = np.where(gap > 0, np.log(near / speed) / np.where(gap > 0, gap, 1), 0.0)
    log_users = (1 - part) * np.log(counts[lower]) + part * np.log(counts[upper])
    return np.where(reached > 0, np.exp(log_users), np.nan)


def _between(line: Line, values: Any, users: Any) -> Any:
    """Points interpolated at some users, both in logarithms."""
    counts = np.log([point.concurrency_count for point in line.points])
    place = np.clip(np.searchsorted(counts, np.log(users), side="right") - 1, 0, len(counts) - 1)
    after = np.clip(place + 1, 0, len(counts) - 1)
    step = counts[after] - counts[place]
    part = np.where(step > 0, (np.log(users) - counts[place]) / np.where(step > 0, step, 1), 0.0)
    left, right = (np.take_along_axis(values, p[None], axis=0)[0] for p in (place, after))
    found = np.exp((1 - part) * np.log(left) + part * np.log(right))
    return np.where(np.isfinite(users), found, np.nan)


def _at_node(line: Line, dials: Dials, metered: Any, rate: Any) -> tuple[Any, Any]:
    """Joules per token and idle watts of a replica, with its share of the rest of the server."""
    name, node = line.machine.name, line.machine.node
    idle = line.device_count * dials.at(f"{name}: idle watts", idle_power(line.machine), "idle")
    meter = line.machine.power.boundary if line.machine.power else "board"
    if line.boundary not in NARROW and meter not in NARROW:
        return metered, idle
    if node and node.fixed_power and node.slope and node.accelerators:
        slope = dials.at(f"{name}: node slope", _band(node.slope), "node")
        fixed = dials.at(f"{name}: node fixed watts", _band(node.fixed_power), "node")
        fixed = fixed * line.device_count / node.accelerators.value
        whole, resting = slope * metered + fixed / rate, slope * idle + fixed
    else:
        group = "node" if line.boundary in NARROW else "idle"
        ratio = dials.at(f"{name}: node over board", NODE_OVER_BOARD, group)
        whole, resting = metered * ratio, idle * ratio
    return (
        whole if line.boundary in NARROW else metered,
        resting if meter in NARROW else idle,
    )


def idle_power(machine: MachineProfile) -> Band:
    """Watts of a device with the model loaded and nothing to do, as its profile meters them."""
    power = machine.power
    if power is not None and power.idle_context is not None:
        return _band(power.idle_context)
    if power is None or power.tdp is None:
        raise UsageError(
            f"hardware profile {machine.name!r} has neither idle nor design power; add one with "
            f"its source to a copy of the file"
        )
    tdp = power.tdp.value
    low, high = IDLE_RANGE
    return Band(value=IDLE_FRACTION * tdp, low=low * tdp, high=high * tdp, kind="assumed")
