"""How requests leave a machine, compiled: served, or cancelled; their next turns then come."""

from __future__ import annotations

import math
from typing import Any

from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.layout import CANCELLED, MOVED, PREFILL, SERVED, TURNS
from wattbench.routing.queues import remove
from wattbench.routing.spending import pay, roll

LOW = 0xFFFFFFFF


@inlined
def answer(kind: Any, q: Any) -> int:
    """Tokens of the answer that a machine gives, as long as the request is there."""
    return 1 if kind.role == PREFILL else q.output


@inlined
def guessed(kind: Any, q: Any) -> int:
    """What the router takes them for."""
    return 1 if kind.role == PREFILL else q.guess


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
    _depart(m, kind, q)
    if w.child.shape[0] > 0:
        turn = w.child[r]
        while turn >= 0:
            _remember(w, m.now_s + w.think_s[turn], turn)
            turn = w.sibling[turn]


@inlined
def cancel(w: Any, m: Any, kind: Any, r: int) -> None:
    """Its user has gone: the turns that would have followed never come."""
    w.requests[r].status = CANCELLED
    _depart(m, kind, w.requests[r])


@kernel
def move(w: Any, m: Any, kind: Any, r: int) -> None:
    """A request has its first token on a prefill machine: its KV memory goes to the router."""
    q, tokens = w.requests[r], w.requests[r].input + 1
    if kind.whole == 1:
        m.reserved -= tokens + kind.charge
    _depart(m, kind, q)
    w.legs[r].machine, w.legs[r].reach_s = q.machine, q.reach_s
    w.legs[r].wait_s = q.wait_s
    q.status, q.generated, q.wait_s = MOVED, 1, math.inf
    at_s, joules = m.now_s + (w.transfer[0] + tokens * w.transfer[1]), tokens * w.transfer[2]
    if m.now_s >= m.change_s:
        roll(w, m)
    m.transfer += joules
    pay(w, m, m.now_s, at_s, joules)
    _remember(w, at_s, r)


@inlined
def _depart(m: Any, kind: Any, q: Any) -> None:
    m.outstanding -= 1
    m.load -= q.input + guessed(kind, q)
    m.full -= q.input + answer(kind, q)


@kernel
def _remember(w: Any, at_s: float, r: int) -> None:
    """A turn, or a request that moves, arrives at the router: into the heap of those to come."""
    place = w.counts[TURNS]
    w.counts[TURNS] += 1
    while place > 0:
        above = (place - 1) >> 1
        if w.due_s[above] < at_s or (w.due_s[above] == at_s and w.due[above] < r):
            break
        w.due_s[place], w.due[place] = w.due_s[above], w.due[above]
        place = above
    w.due_s[place], w.due[place] = at_s, r
