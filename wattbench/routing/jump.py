"""The jump over decode steps in closed form, compiled.

Where only decode steps follow, all requests advance together, so a lane is v, v + s, v + 2s, …
with s = c·B, and k steps take

    T(k) = k·v + s·k(k − 1)/2

The run ends at the earliest of the next completion, another lane overtaking, memory running out,
the first boundary that sees an arrival or the end of a user's patience, and a change at the site.
"""

from __future__ import annotations

import math
from typing import Any

from wattbench.routing.compiled import inlined
from wattbench.routing.layout import PRIORITIES
from wattbench.routing.leaving import held
from wattbench.routing.spending import pay

FAR = 1 << 30


@inlined
def glide(w: Any, i: int, m: Any, kind: Any, until_s: float) -> bool:
    """Jump over steps without prompts, to the next event; False: it lies beyond ``until_s``."""
    heap, batch, context = w.heaps[i], m.batch, m.context
    row = w.table[m.kind, batch]
    joules, more_joules = row[2] + kind.context[2] * context, kind.context[2] * batch
    first, more_first = row[0] + kind.context[0] * context, kind.context[0] * batch
    second, more_second = row[1] + kind.context[1] * context, kind.context[1] * batch
    capped, more_capped = joules * m.per_watt, more_joules * m.per_watt
    v, s = _upper(first, more_first, second, more_second)
    v, s = _upper(v, s, capped, more_capped)
    k = (heap[0] >> 32) - m.steps
    k = min(k, _lead(v - first, more_first - s))
    k = min(k, _lead(v - second, more_second - s))
    k = min(k, _lead(v - capped, more_capped - s))
    if kind.whole == 0:
        k = min(k, (kind.capacity - held(m, kind)) // batch + 1)
    if m.blocked == 1:
        k = 1
    span_s = k * v + s * (k * (k - 1) / 2)
    if m.waiting > 0 and batch < kind.max_batch:
        watch_s = _watch_s(w, i, m)
        if m.now_s + span_s > watch_s:
            k = min(k, max(1, _steps_past(m.now_s, v, s, watch_s)))
            span_s = k * v + s * (k * (k - 1) / 2)
    if m.now_s + span_s > m.change_s:
        k = _steps_past(m.now_s, v, s, m.change_s)
        if k > 1 and m.now_s + k * v + s * (k * (k - 1) / 2) > m.change_s:
            k -= 1
        span_s = k * v + s * (k * (k - 1) / 2)
    end_s = m.now_s + span_s
    if end_s > until_s:
        m.bound_s = end_s
        return False
    drawn = k * joules + more_joules * (k * (k - 1) / 2)
    m.fixed += k * w.table[m.kind, 0, 2]
    m.decode += drawn - k * w.table[m.kind, 0, 2]
    m.busy_s += span_s
    pay(w, m, m.now_s, end_s, drawn + kind.busy_watts * span_s)
    m.now_s = end_s
    m.steps += k
    m.context += k * batch
    return True


@inlined
def _upper(v: float, s: float, other: float, more: float) -> tuple[float, float]:
    """The lane that rules the first steps: the higher one, and of equals the steeper one."""
    if other > v or (other == v and more > s):
        return other, more
    return v, s


@inlined
def _lead(gap: float, gain: float) -> int:
    """For how many steps a lane that lies ``gap`` lower and gains ``gain`` a step stays below."""
    if gain <= 0 or gap >= gain * FAR:
        return FAR
    return int(gap / gain) + 1


@inlined
def _watch_s(w: Any, i: int, m: Any) -> float:
    """The next instant at which the queue may change: an arrival, or a user's patience ends."""
    watch_s = math.inf
    for p in range(PRIORITIES):
        head = w.queues[i, p, 0]
        if head >= 0:
            q = w.requests[head]
            if q.reach_s > m.now_s:
                watch_s = min(watch_s, q.reach_s)
            elif q.preempted == 0:
                # The first boundary after it, not at it: the next float does that.
                end_s = q.reach_s + q.wait_s
                watch_s = min(watch_s, end_s + abs(end_s) * 2.3e-16)
    return watch_s


@inlined
def _steps_past(now_s: float, v: float, s: float, at_s: float) -> int:
    """Fewest steps, at least one, whose end is not before ``at_s``."""
    slope = v - s / 2
    wait_s = at_s - now_s
    k = max(1, int(2 * wait_s / (slope + math.sqrt(slope * slope + 2 * s * wait_s))))
    while now_s + k * v + s * (k * (k - 1) / 2) < at_s:
        k += 1
    while k > 1 and now_s + (k - 1) * v + s * ((k - 1) * (k - 2) / 2) >= at_s:
        k -= 1
    return k
