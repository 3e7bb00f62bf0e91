"""From a fleet and a trace to the arrays that the kernels work on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.routing.fleet import Fleet, Machine, Pool, Site
from wattbench.routing.layout import (
    BOTH,
    DECODE,
    DOWN,
    KIND,
    LEG,
    MACHINE,
    NO_LOAD,
    PREFILL,
    PRIORITIES,
    REQUEST,
    SCALE,
    World,
)
from wattbench.routing.prefixes import shelves
from wattbench.routing.step import Knots, Lane, StepModel

JOULES_PER_KWH = 3.6e6
ROLES = {"both": BOTH, "prefill": PREFILL, "decode": DECODE}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """What the kernels need of a trace: arrays of shape (n,), in order of arrival.

    Attributes:
        arrival_s: Arrivals, rising [s].
        input_tokens: Prompts [tokens].
        output_tokens: Answers [tokens].
        guess_tokens: What the router takes the answers' lengths for [tokens].
        priority: Queue of each, 0 the most urgent; None: all alike.
        patience_s: How long each waits to be admitted [s]; None: for ever.
        parent: The turn before each in its session, −1: none; None: no sessions.
        think_s: The pause between a parent's last token and the turn [s].
        block_start: Shape (n + 1,): where each prompt's blocks begin and end in ``blocks``; None:
            not told.
        blocks: Numbers of blocks; each stands for its text and all before it.
        block_tokens: Text of a block [tokens].
    """

    arrival_s: Any
    input_tokens: Any
    output_tokens: Any
    guess_tokens: Any = None
    priority: Any = None
    patience_s: Any = None
    parent: Any = None
    think_s: Any = None
    block_start: Any = None
    blocks: Any = None
    block_tokens: int | None = None

    @property
    def count(self) -> int:
        """Requests."""
        return len(self.arrival_s)


def build(fleet: Fleet, demand: Demand) -> World:
    """All arrays, every machine idle at time 0.

    Raises:
        UsageError: If a request fits no machine.
    """
    kinds = [pool.machine for pool in fleet.pools]
    _check_fit(fleet.pools, demand)
    changes, rates, shares = _series(fleet)
    child, sibling, think_s = _turns(demand, fleet.transfer is not None)
    machines, scales = _machines(fleet), _scales(fleet)
    for scale in scales:
        machines["power"][scale["first"] + scale["min_count"] : scale["last"]] = DOWN
    leaves = 1 << (fleet.count - 1).bit_length() if fleet.count > 1 else 2
    return World(
        requests=_requests(demand),
        machines=machines,
        kinds=_kinds(fleet.pools),
        table=_tables(kinds),
        knots=_knots(kinds),
        heaps=np.zeros((fleet.count, max(kind.max_batch for kind in kinds)), dtype=np.int64),
        queues=np.full((fleet.count, PRIORITIES, 2), -1, dtype=np.int32),
        changes=changes,
        rates=rates,
        shares=shares,
        child=child,
        sibling=sibling,
        think_s=think_s,
        due_s=np.full(len(child), math.inf),
        due=np.full(len(child), -1, dtype=np.int32),
        counts=np.array([0, 0, -1, -1, -1, *(0 for _ in fleet.sites)], dtype=np.int64),
        calendar=np.full(2 * leaves, math.inf),
        loads=_loads(machines["power"] == DOWN, leaves),
        scales=scales,
        scale_s=scales["every_s"].min(keepdims=True),
        legs=np.array(
            [(math.nan, math.nan, -1)] * (0 if fleet.transfer is None else demand.count), dtype=LEG
        ),
        transfer=_transfer(fleet),
        **shelves(fleet, demand.block_start, demand.blocks, demand.block_tokens),
    )


def _loads(is_down: Any, leaves: int) -> Any:
    """Nothing to do for any machine; those that are down, and leaves without one, never win."""
    loads = np.full(2 * leaves, NO_LOAD)
    loads[leaves : leaves + len(is_down)][~is_down] = 0
    for node in range(leaves - 1, 0, -1):
        loads[node] = min(loads[2 * node], loads[2 * node + 1])
    return loads


def _transfer(fleet: Fleet) -> Any:
    each = fleet.transfer
    if each is None:
        return np.zeros(3)
    return np.array([each.fixed_s, each.s_per_token, each.joules_per_token])


def _check_fit(pools: tuple[Pool, ...], demand: Demand) -> None:
    """Every request must find a machine, and after a prefill machine another one."""
    room = dict.fromkeys(ROLES, 0)
    for pool in pools:
        mine = pool.machine.kv_capacity_tokens - pool.machine.kv_request_tokens
        room[pool.role] = max(room[pool.role], mine)
    prompts = demand.input_tokens.astype(np.int64)
    contexts = prompts + demand.output_tokens
    misfits = [((contexts > room["both"]) & (prompts + 1 > room["prefill"]), "machine", contexts)]
    if any(pool.role == "prefill" for pool in pools):
        misfits.append(((contexts > room["decode"]), "decode machine", contexts))
    for misfit, what, needs in misfits:
        if misfit.any():
            worst = int(np.where(misfit, needs, 0).argmax())
            most = room["decode"] if what == "decode machine" else max(room.values())
            raise UsageError(
                f"request {worst + 1} needs {int(needs[worst])} tokens of context "
                f"({int(prompts[worst])} in, {int(demand.output_tokens[worst])} out); no "
                f"{what} of the fleet holds more than {most}: add one that does, or leave it out"
            )


def _requests(demand: Demand) -> Any:
    requests = np.zeros(demand.count, dtype=REQUEST)
    requests["reach_s"] = demand.arrival_s
    requests["first_s"] = math.nan
    requests["finish_s"] = math.nan
    requests["wait_s"] = math.inf if demand.patience_s is None else demand.patience_s
    requests["input"] = demand.input_tokens
    requests["output"] = demand.output_tokens
    guess = demand.output_tokens if demand.guess_tokens is None else demand.guess_tokens
    requests["guess"] = guess
    requests["next"] = -1
    requests["machine"] = -1
    requests["priority"] = 0 if demand.priority is None else demand.priority
    return requests


def _turns(demand: Demand, moves: bool) -> tuple[Any, Any, Any]:
    """First follower and next sibling of each turn, and the pause before it.

    Empty where nothing comes but the trace: no sessions, and no request ``moves``.
    """
    if demand.parent is None and moves:
        none = np.full(demand.count, -1, dtype=np.int32)
        return none, none, np.full(demand.count, -1.0)
    if demand.parent is None:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), np.empty(0)
    child = np.full(demand.count, -1, dtype=np.int32)
    sibling = np.full(demand.count, -1, dtype=np.int32)
    for turn in np.flatnonzero(demand.parent >= 0)[::-1]:
        sibling[turn] = child[demand.parent[turn]]
        child[demand.parent[turn]] = turn
    return child, sibling, np.where(demand.parent >= 0, demand.think_s, -1.0)


def _machines(fleet: Fleet) -> Any:
    machines = np.zeros(fleet.count, dtype=MACHINE)
    names = [site.name for site in fleet.sites]
    counts = [pool.count for pool in fleet.pools]
    machines["kind"] = np.repeat(np.arange(len(counts)), counts)
    machines["site"] = np.repeat([names.index(pool.site) for pool in fleet.pools], counts)
    machines["end_s"] = machines["bound_s"] = math.inf
    machines["partial"] = machines["landing"] = -1
    machines["segment"] = -1  # the first boundary takes the first one up
    return machines


def _scales(fleet: Fleet) -> Any:
    scales = np.zeros(len(fleet.pools), dtype=SCALE)
    scales["last"] = np.cumsum([pool.count for pool in fleet.pools])
    scales["first"] = scales["last"] - [pool.count for pool in fleet.pools]
    scales["every_s"] = math.inf
    for record, pool in zip(scales, fleet.pools, strict=True):
        each = pool.autoscale
        record["min_count"] = pool.count if each is None else each.min_count
        if each is not None:
            record["every_s"] = each.every_s
            record["target"] = each.outstanding_per_machine
            record["provision_s"] = each.provision_s
            record["provision_joules"] = each.provision_joules
            record["off_watts"] = each.off_watts
    return scales


def _kinds(pools: tuple[Pool, ...]) -> Any:
    records = np.zeros(len(pools), dtype=KIND)
    for record, pool in zip(records, pools, strict=True):
        kind = pool.machine
        record["role"] = ROLES[pool.role]
        lanes = _lanes(kind.step)
        record["max_batch"] = kind.max_batch
        record["max_step"] = kind.max_step_tokens
        record["capacity"] = kind.kv_capacity_tokens
        record["charge"] = kind.kv_request_tokens
        record["whole"] = kind.kv_rule == "whole"
        record["busy_watts"] = kind.step.busy_watts
        record["idle_watts"] = kind.idle_watts
        record["sleep_watts"] = kind.sleep_watts
        record["sleep_after_s"] = kind.sleep_after_s
        record["wake_s"] = kind.wake_s
        record["wake_joules"] = kind.wake_joules
        record["floor_s"] = min(kind.step.time_s(s) for s in ((1, 1, 0, 0), (0, 0, 1, 1)))
        record["context"] = [lane.per_context_token for lane in lanes]
        record["attended"] = [lane.per_attended_token for lane in lanes]
    return records


def _lanes(step: StepModel) -> tuple[Lane, Lane, Lane]:
    return step.memory, step.arithmetic, step.energy


def _tables(kinds: list[Machine]) -> Any:
    rows = max(kind.max_batch for kind in kinds) + 1
    table = np.zeros((len(kinds), rows, 6))
    for k, kind in enumerate(kinds):
        for column, lane in enumerate(_lanes(kind.step)):
            tokens, batch = _curve(lane.tokens, rows), _curve(lane.batch, rows)
            table[k, :, column] = tokens + batch
            table[k, :, 3 + column] = batch
    return table


def _curve(points: Knots, rows: int) -> Any:
    """`step.interpolated` at 0, 1, … rows − 1."""
    if len(points) < 2:
        return np.full(rows, points[0][1] if points else 0.0)
    x, y = np.array(points).T
    at = np.arange(rows, dtype=float)
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    slope = (y[left + 1] - y[left]) / (x[left + 1] - x[left])
    return y[left] + slope * np.maximum(at - x[left], 0.0)


def _knots(kinds: list[Machine]) -> Any:
    """x, F and slope of each lane's knots; what is left of the width never comes up."""
    width = max(1, *(len(lane.tokens) for kind in kinds for lane in _lanes(kind.step)))
    knots = np.zeros((len(kinds), 3, width, 3))
    knots[..., 0] = math.inf
    for k, kind in enumerate(kinds):
        for number, lane in enumerate(_lanes(kind.step)):
            points = lane.tokens or ((0.0, 0.0),)
            slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(points)]
            slopes.append(slopes[-1] if slopes else 0.0)
            for j, ((x, y), slope) in enumerate(zip(points, slopes, strict=True)):
                knots[k, number, j] = (x, y, slope)
    return knots


def _series(fleet: Fleet) -> tuple[Any, Any, Any]:
    """Each site's instants of change, its price and carbon per joule, its machines' caps."""
    instants = [_instants(site) for site in fleet.sites]
    width = max(len(each) for each in instants)
    changes = np.full((len(instants), width + 1), math.inf)
    rates = np.zeros((len(instants), width, 2))
    shares = np.zeros((len(instants), len(fleet.pools), width))
    for s, (site, at) in enumerate(zip(fleet.sites, instants, strict=True)):
        changes[s, : len(at)] = at
        for j, at_s in enumerate(at):
            for column, series in enumerate((site.price_usd_per_kwh, site.carbon_gco2e_per_kwh)):
                if series is not None:
                    rates[s, j, column] = series.at(at_s) * site.pue / JOULES_PER_KWH
            for k, pool in enumerate(fleet.pools):
                shares[s, k, j] = _per_watt(fleet, site, pool.machine, at_s)
    return changes, rates, shares


def _instants(site: Site) -> list[float]:
    series = (site.cap_watts, site.price_usd_per_kwh, site.carbon_gco2e_per_kwh)
    return sorted({0.0, *(at for each in series if each is not None for at in each.at_s)})


def _per_watt(fleet: Fleet, site: Site, machine: Machine, at_s: float) -> float:
    cap_watts = machine.cap_watts
    if site.cap_watts is not None:
        share_watts = fleet.share_watts(site, machine, site.cap_watts.at(at_s))
        cap_watts = min(cap_watts, share_watts)
    return 0.0 if math.isinf(cap_watts) else 1.0 / (cap_watts - machine.step.busy_watts)
