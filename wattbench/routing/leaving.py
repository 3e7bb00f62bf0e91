"""How requests leave a machine, compiled: served, or cancelled; their next turns then come."""

from __future__ import annotations

from typing import Any

from wattbench.routing.compiled import inlined
from wattbench.routing.layout import CANCELLED, SERVED, TURNS
from wattbench.routing.queues import remove

LOW = 0xFFFFFFFF


@inlined
def held(m: Any, kind: Any) -> int:
    """KV memory that is taken at a boundary, the coming step's tokens included [tokens]."""
    if kind.whole == 1:
        return m.reserved
    return m.context + kind.charge * m.batch + m.reserved


@inlined
def complete(w: Any, i: int, m: Any, kind: Any) -> None:
    """Let all decoding requests go whose last step this was."""
    heap = w.heaps[i]
    while m.batch > 0 and heap[0] >> 32 == m.steps:
        r = heap[0] & LOW
        remove(heap, m.batch, 0)
        finish(w, m, kind, r)


@inlined
def finish(w: Any, m: Any, kind: Any, r: int) -> None:
    """A decoding request has its last token."""
    q = w.requests[r]
    q.finish_s = m.now_s
    q.status = SERVED
    m.batch -= 1
    m.context -= q.input + q.output
    if kind.whole == 1:
        m.reserved -= q.input + q.output + kind.charge
    _depart(m, q)
    if w.child.shape[0] > 0:
        turn = w.child[r]
        while turn >= 0:
            _remember(w, m.now_s, turn)
            turn = w.sibling[turn]


@inlined
def cancel(w: Any, m: Any, r: int) -> None:
    """Its user has gone: the turns that would have followed never come."""
    w.requests[r].status = CANCELLED
    _depart(m, w.requests[r])


@inlined
def _depart(m: Any, q: Any) -> None:
    m.outstanding -= 1
    m.load -= q.input + q.guess
    m.full -= q.input + q.output


@inlined
def _remember(w: Any, now_s: float, r: int) -> None:
    """The next turn arrives after the user's pause: into the heap of turns to come."""
    at_s, place = now_s + w.think_s[r], w.counts[TURNS]
    w.counts[TURNS] += 1
    while place > 0:
        above = (place - 1) >> 1
        if w.due_s[above] < at_s or (w.due_s[above] == at_s and w.due[above] < r):
            break
        w.due_s[place], w.due[place] = w.due_s[above], w.due[above]
        place = above
    w.due_s[place], w.due[place] = at_s, r
