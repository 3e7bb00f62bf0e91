"""Autoscaling, compiled: which machines are on, and what they draw while they are off.

The machines of a pool that scales are looked at where its controller decides or one of them
becomes ready. Between these, one that is down and has nothing left is off since its last boundary.
"""

from __future__ import annotations

import math
from typing import Any

from wattbench.routing.calendar import settle, smallest
from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.layout import COMING, DOWN, NO_LOAD, ON
from wattbench.routing.machine import advance
from wattbench.routing.spending import pay, rest, roll


@inlined
def carry(w: Any, seen: Any, i: int, until_s: float) -> None:
    """Carry a machine to ``until_s``, and note when it is due next and what it has to do."""
    advance(w, i, until_s)
    settle(w.calendar, i, w.machines[i].bound_s)
    note_load(w, seen, i)


@inlined
def note_load(w: Any, seen: Any, i: int) -> None:
    """What a machine has to do, as far as is seen, in the tree; unroutable ones never win."""
    m = seen[i]
    settle(w.loads, i, m.outstanding if m.power == ON else NO_LOAD)


@inlined
def catch_up(w: Any, seen: Any, now_s: float) -> None:
    """Carry every machine that is due to ``now_s``."""
    while w.calendar[1] <= now_s:
        carry(w, seen, smallest(w.calendar), now_s)


@kernel
def scale(w: Any, seen: Any, until_s: float) -> None:
    """Whatever the controllers of pools do up to ``until_s``; what the router ``seen`` follows."""
    while w.scale_s[0] <= until_s:
        now_s = w.scale_s[0]
        catch_up(w, seen, now_s)
        next_s = math.inf
        for k in range(w.scales.shape[0]):
            pool = w.scales[k]
            if pool.every_s < math.inf:
                _act(w, pool, now_s)
                for i in range(pool.first, pool.last):
                    seen[i].power = w.machines[i].power
                    note_load(w, seen, i)
                    if w.machines[i].power == COMING:
                        next_s = min(next_s, w.machines[i].ready_s)
                next_s = min(next_s, (pool.done + 1) * pool.every_s)
        w.scale_s[0] = next_s


@inlined
def _act(w: Any, pool: Any, now_s: float) -> None:
    """Machines that are ready become routable; at a multiple of the period, it is decided."""
    outstanding, on, routable = 0, 0, 0
    for i in range(pool.first, pool.last):
        m = w.machines[i]
        if m.power == COMING and m.ready_s <= now_s:
            _draw_coming(w, m, pool, m.ready_s)
            m.power = ON
        outstanding += m.outstanding
        on += m.power != DOWN
        routable += m.power == ON
    if now_s < (pool.done + 1) * pool.every_s:
        return
    pool.done += 1
    wanted = math.ceil(outstanding / pool.target)
    wanted = min(max(wanted, pool.min_count), pool.last - pool.first)
    if wanted > on:
        _turn_on(w, pool, now_s, wanted - on)
    elif wanted < on:
        _turn_off(w, pool, now_s, min(on - wanted, routable - pool.min_count))


@inlined
def _turn_on(w: Any, pool: Any, now_s: float, more: int) -> None:
    """The lowest numbers: those that still work first, as they need not be provisioned."""
    for i in range(pool.first, pool.last):
        m = w.machines[i]
        if more > 0 and m.power == DOWN and m.outstanding > 0:
            m.power = ON
            more -= 1
    for i in range(pool.first, pool.last):
        m = w.machines[i]
        if more > 0 and m.power == DOWN:
            _draw_off(w, m, pool, now_s)
            m.power = COMING
            m.ready_s = now_s + pool.provision_s
            more -= 1


@inlined
def _turn_off(w: Any, pool: Any, now_s: float, fewer: int) -> None:
    """The highest numbers; what they have got they finish."""
    for i in range(pool.last - 1, pool.first - 1, -1):
        m = w.machines[i]
        if fewer > 0 and m.power == ON:
            if m.outstanding == 0:
                take_up(w, m)
                rest(w, m, w.kinds[m.kind], now_s)
            m.power = DOWN
            fewer -= 1


@inlined
def take_up(w: Any, m: Any) -> None:
    """Put the site's series at the machine's last boundary in force."""
    if m.now_s >= m.change_s:
        roll(w, m)


@inlined
def _draw_off(w: Any, m: Any, pool: Any, to_s: float) -> None:
    take_up(w, m)
    joules = pool.off_watts * (to_s - m.now_s)
    m.off += joules
    pay(w, m, m.now_s, to_s, joules)
    m.now_s = to_s


@inlined
def _draw_coming(w: Any, m: Any, pool: Any, to_s: float) -> None:
    """Energy of being provisioned, up to ``to_s`` at the latest."""
    take_up(w, m)
    joules = pool.provision_joules
    if to_s < m.ready_s:
        joules *= (to_s - m.now_s) / pool.provision_s
    m.wake += joules
    pay(w, m, m.now_s, to_s, joules)
    m.now_s = to_s


@kernel
def close(w: Any, horizon_s: float) -> None:
    """Let every machine idle and sleep, or be off, until the horizon."""
    while w.scale_s[0] < horizon_s:
        scale(w, w.machines, w.scale_s[0])
    for i in range(w.machines.shape[0]):
        m = w.machines[i]
        take_up(w, m)
        if horizon_s <= m.now_s:
            continue
        if m.power == ON:
            rest(w, m, w.kinds[m.kind], horizon_s)
        elif m.power == DOWN:
            _draw_off(w, m, w.scales[m.kind], horizon_s)
        else:
            _draw_coming(w, m, w.scales[m.kind], horizon_s)
