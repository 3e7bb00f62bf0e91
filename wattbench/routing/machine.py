"""A machine's life, compiled: steps with prompts, jumps over decode steps, idle time, wake-up.

Follows docs/simulator.md to the letter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.jump import glide
from wattbench.routing.layout import PRIORITIES
from wattbench.routing.leaving import complete, held
from wattbench.routing.prompts import land, preempt, take_off
from wattbench.routing.spending import pay, rest, roll


@kernel
def advance(w: Any, i: int, until_s: float) -> None:
    """Carry machine ``i`` to ``until_s``: steps that end by then, none that begins only then.

    Whoever arrives at ``until_s`` is thus seen by a boundary at that instant. ``bound_s`` is set:
    before it nothing leaves the machine.
    """
    m = w.machines[i]
    kind = w.kinds[m.kind]
    while _at_boundary(w, i, m, kind, until_s):
        if kind.whole == 0 and held(m, kind) > kind.capacity:
            preempt(w, i, m, kind)
            m.blocked = 1
        if m.blocked == 0 and (m.partial >= 0 or m.waiting > 0) and take_off(w, i, m, kind):
            continue
        if m.batch == 0:
            continue  # the head of the queue was cancelled
        if not glide(w, i, m, kind, until_s):
            return
        m.blocked = 0


@inlined
def _at_boundary(w: Any, i: int, m: Any, kind: Any, until_s: float) -> bool:
    """Whether a boundary with work lies before ``until_s``; the machine then stands there."""
    if m.end_s < math.inf:
        if m.end_s > until_s:
            m.bound_s = m.end_s
            return False
        land(w, i, m, kind)
    complete(w, i, m, kind)
    if m.now_s >= m.change_s:
        roll(w, m)
    if m.batch == 0 and m.partial < 0:
        if m.waiting == 0:
            m.bound_s = math.inf
            return False
        reach_s = _next_reach_s(w, i, m)
        if reach_s > m.now_s:
            if reach_s >= until_s:
                m.bound_s = max(reach_s, np.nextafter(until_s, math.inf))
                return False
            _wake(w, m, kind, reach_s)
    if m.now_s >= until_s:
        m.bound_s = max(m.now_s, np.nextafter(until_s, math.inf))
        return False
    return True


@inlined
def _wake(w: Any, m: Any, kind: Any, reach_s: float) -> None:
    """Idle until a request comes; a machine that sleeps by then wakes for it."""
    if not rest(w, m, kind, reach_s):
        return
    m.wake += kind.wake_joules
    pay(w, m, m.now_s, m.now_s + kind.wake_s, kind.wake_joules)
    m.now_s += kind.wake_s
    if m.now_s >= m.change_s:
        roll(w, m)


@inlined
def _next_reach_s(w: Any, i: int, m: Any) -> float:
    """When the first of the waiting requests reaches the machine."""
    first_s = math.inf
    for p in range(PRIORITIES):
        head = w.queues[i, p, 0]
        if head >= 0:
            first_s = min(first_s, w.requests[head].reach_s)
    return first_s
