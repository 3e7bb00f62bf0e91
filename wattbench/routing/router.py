"""The loop over arrivals, compiled: who is due, what the policy chooses, where it goes.

Policies that look at nothing (round robin, random) are dealt out first, and every machine then
runs to its end alone. All others see each machine at its last boundary.
"""

from __future__ import annotations

import math
from typing import Any

from wattbench.routing.calendar import raise_up, settle, smallest
from wattbench.routing.choice import PREFIX_AFFINITY, choose
from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.layout import (
    LOOK,
    MOVED,
    NEXT,
    NO_LOAD,
    ON,
    OWN_SENDS,
    QUEUE_LIMIT,
    REFUSED,
    SIGNALS_S,
    TURNS,
)
from wattbench.routing.leaving import answer, guessed
from wattbench.routing.machine import advance
from wattbench.routing.queues import enter_queue
from wattbench.routing.scaling import carry, catch_up, note_load, scale


@inlined
def send(w: Any, r: int, i: int, delay_s: float) -> None:
    """Send a request to a machine: it reaches it ``delay_s`` after its arrival."""
    q, m = w.requests[r], w.machines[i]
    q.machine = i
    q.reach_s += delay_s
    kind = w.kinds[m.kind]
    enter_queue(w, i, m, r)
    m.outstanding += 1
    m.load += q.input + guessed(kind, q)
    m.full += q.input + answer(kind, q)
    # It cannot leave sooner than its own tokens take. Where memory may run out, others can leave
    # sooner than foreseen: preemption makes steps shorter.
    first_s = q.reach_s + (answer(kind, q) - (q.status == MOVED)) * kind.floor_s
    if kind.whole == 0 and m.full + kind.charge * m.outstanding > kind.capacity:
        first_s = q.reach_s
    # An idle machine begins at once, and one without patience leaves without having been served.
    if m.batch + m.filling == 0 or q.wait_s < math.inf:
        first_s = q.reach_s
    m.bound_s = min(m.bound_s, first_s)


@kernel
def deal(w: Any, policy: int, dials: Any, delays_s: Any) -> None:
    """Route the whole trace by a policy that sees nothing, then run each machine to its end."""
    machines = w.machines
    for r in range(w.requests.shape[0]):
        i = choose(w, machines, r, policy, dials)
        send(w, r, i, delays_s[machines[i].site])
    for i in range(machines.shape[0]):
        advance(w, i, math.inf)


@kernel
def route(w: Any, seen: Any, policy: int, dials: Any, delays_s: Any, most: int) -> None:
    """Route up to ``most`` arrivals by a policy that sees the machines.

    ``seen`` is what it sees of them: the machines themselves, or a copy that `refresh` keeps.
    """
    for _ in range(most):
        r = next_arrival(w, seen, dials)
        if r < 0:
            return
        if dials[SIGNALS_S] > 0 and w.requests[r].reach_s / dials[SIGNALS_S] >= w.counts[LOOK] + 1:
            refresh(w, seen, dials, w.requests[r].reach_s)
        if w.scale_s[0] <= w.requests[r].reach_s:
            scale(w, seen, w.requests[r].reach_s)
        if policy == PREFIX_AFFINITY:  # it knows which blocks are kept now
            for i in range(w.machines.shape[0]):
                carry(w, seen, i, w.requests[r].reach_s)
        # Late signals show nothing of what happens meanwhile; only a limit of the queue does.
        if dials[SIGNALS_S] == 0 or dials[QUEUE_LIMIT] < math.inf:
            catch_up(w, seen, w.requests[r].reach_s)
        i = choose(w, seen, r, policy, dials)
        place(w, seen, r, i, dials, delays_s)


@kernel
def look(w: Any, seen: Any, dials: Any) -> int:
    """The next arrival, for a policy in Python: every machine is carried to its instant."""
    r = next_arrival(w, seen, dials)
    if r >= 0:
        if dials[SIGNALS_S] > 0:
            refresh(w, seen, dials, w.requests[r].reach_s)
        scale(w, seen, w.requests[r].reach_s)
        for i in range(w.machines.shape[0]):
            carry(w, seen, i, w.requests[r].reach_s)
    return r


@kernel
def refresh(w: Any, seen: Any, dials: Any, now_s: float) -> None:
    """Copy the machines as they were at the last multiple of the signals' period."""
    tick = int(now_s / dials[SIGNALS_S])
    if tick <= w.counts[LOOK]:
        return
    w.counts[LOOK] = tick
    scale(w, seen, tick * dials[SIGNALS_S])
    catch_up(w, seen, tick * dials[SIGNALS_S])
    leaves = w.loads.shape[0] >> 1
    for i in range(seen.shape[0]):
        seen[i] = w.machines[i]
        w.loads[leaves + i] = seen[i].outstanding if seen[i].power == ON else NO_LOAD
    raise_up(w.loads)


@inlined
def next_arrival(w: Any, seen: Any, dials: Any) -> int:
    """The request that arrives next, taken off the trace or those to come; −1: none is left."""
    if w.child.shape[0] == 0:
        r = w.counts[NEXT]
        if r >= w.requests.shape[0]:
            return -1
        w.counts[NEXT] += 1
        return r
    return _next_turn(w, seen, dials)


@kernel
def _next_turn(w: Any, seen: Any, dials: Any) -> int:
    """As `next_arrival`, where answers bring new turns: nobody may run ahead of the next one."""
    while True:
        r = w.counts[NEXT]
        while r < w.requests.shape[0] and w.think_s[r] >= 0:
            r += 1
        w.counts[NEXT] = r
        trace_s = w.requests[r].reach_s if r < w.requests.shape[0] else math.inf
        turn_s = w.due_s[0] if w.counts[TURNS] > 0 else math.inf
        at_s = min(trace_s, turn_s)
        if dials[SIGNALS_S] > 0 and min(at_s, w.calendar[1]) < math.inf:
            refresh(w, seen, dials, min(at_s, w.calendar[1]))
        if w.scale_s[0] <= min(at_s, w.calendar[1]) and min(at_s, w.calendar[1]) < math.inf:
            scale(w, seen, min(at_s, w.calendar[1]))
            continue
        if w.calendar[1] < at_s:
            carry(w, seen, smallest(w.calendar), w.calendar[1])
            continue
        if at_s == math.inf:
            return -1
        if trace_s <= turn_s:
            w.counts[NEXT] += 1
            return r
        return _take_turn(w)


@inlined
def _take_turn(w: Any) -> int:
    """Pop the heap of turns to come."""
    r = w.due[0]
    w.requests[r].reach_s = w.due_s[0]
    size = w.counts[TURNS] - 1
    w.counts[TURNS] = size
    at_s, last, place = w.due_s[size], w.due[size], 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and w.due_s[below + 1] < w.due_s[below]:
            below += 1
        if w.due_s[below] >= at_s:
            break
        w.due_s[place], w.due[place] = w.due_s[below], w.due[below]
        place = below
    w.due_s[place], w.due[place] = at_s, last
    return r


@inlined
def place(w: Any, seen: Any, r: int, i: int, dials: Any, delays_s: Any) -> None:
    """Send an arrival where the policy chose, or refuse it where the queue there is full."""
    m = w.machines[i]
    if m.outstanding >= dials[QUEUE_LIMIT] and w.requests[r].status != MOVED:
        w.requests[r].status = REFUSED
        w.requests[r].machine = i
        return
    send(w, r, i, delays_s[m.site])
    if dials[OWN_SENDS] == 1:
        seen[i].outstanding += 1
        seen[i].load += w.requests[r].input + guessed(w.kinds[m.kind], w.requests[r])
    settle(w.calendar, i, m.bound_s)
    note_load(w, seen, i)


@kernel
def drain(w: Any) -> None:
    """Run every machine to its end, all together as long as any pool scales."""
    while w.scale_s[0] < math.inf and w.calendar[1] < math.inf:
        scale(w, w.machines, w.calendar[1])
        carry(w, w.machines, smallest(w.calendar), w.calendar[1])
    for i in range(w.machines.shape[0]):
        advance(w, i, math.inf)
