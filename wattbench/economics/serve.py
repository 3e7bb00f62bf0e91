"""A replica at work: how many users it serves at a speed, how fast, at how many joules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.core.energy import Boundary
from wattbench.economics.dials import Dials
from wattbench.economics.draw import NARROW
from wattbench.economics.scenario import Scenario
from wattbench.economics.supply import Line, band_of, idle_power
from wattbench.tpf.ceilings import ON_CHIP, node_over


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
        slope = dials.at(f"{name}: node slope", band_of(node.slope), "node")
        fixed = dials.at(f"{name}: node fixed watts", band_of(node.fixed_power), "node")
        fixed = fixed * line.device_count / node.accelerators.value
        whole, resting = slope * metered + fixed / rate, slope * idle + fixed
    else:
        whole = resting = None
        if line.boundary in NARROW:
            whole = metered * _node_ratio(name, line.boundary, dials, "node")
        if meter in NARROW:
            resting = idle * _node_ratio(name, meter, dials, "idle")
    return (
        whole if line.boundary in NARROW else metered,
        resting if meter in NARROW else idle,
    )


def _node_ratio(name: str, boundary: Boundary, dials: Dials, group: str) -> Any:
    part = "chip" if boundary in ON_CHIP else "board"
    return dials.at(f"{name}: node over {part}", node_over(boundary), group)
