"""Steps that work on prompts: admission, chunks, first tokens, preemption; compiled."""

from __future__ import annotations

import math
from typing import Any

from wattbench.routing.compiled import inlined, kernel
from wattbench.routing.layout import MOVED, PREFILL, PRIORITIES, WAITING
from wattbench.routing.leaving import LOW, answer, cancel, held, move
from wattbench.routing.prefixes import keep_landing, reuse
from wattbench.routing.queues import leave_queue, push, remove, return_to_queue
from wattbench.routing.scores import tokens_cost
from wattbench.routing.spending import pay


@inlined
def lane_cost(w: Any, m: Any, kind: Any, lane: int, prompt: int, attended: int) -> float:
    """A lane's value for the decoding requests of the machine and tokens of prompts."""
    return (
        tokens_cost(w, m.kind, lane, m.batch + prompt)
        + w.table[m.kind, m.batch, 3 + lane]
        + kind.context[lane] * m.context
        + kind.attended[lane] * attended
    )


@inlined
def take_off(w: Any, i: int, m: Any, kind: Any) -> bool:
    """Start a step with prompts, if any can be worked on; its energy is booked at once."""
    budget = kind.max_step - m.batch
    prompt, attended = 0, 0
    r = m.partial
    if r >= 0:
        prompt, attended = _chunk(w, m, r, m.partial_done, budget)
    for p in range(PRIORITIES):
        while w.queues[i, p, 0] >= 0 and prompt < budget and m.batch + m.filling < kind.max_batch:
            r = w.queues[i, p, 0]
            q = w.requests[r]
            if q.reach_s > m.now_s:
                break
            if q.preempted == 0 and m.now_s > q.reach_s + q.wait_s:
                leave_queue(w, i, m, p)
                cancel(w, m, kind, r)
                continue
            need = q.input + q.generated + kind.charge
            if kind.whole == 1:
                need = q.input + answer(kind, q) + kind.charge
            if held(m, kind) + need > kind.capacity:
                return _fly(w, m, kind, prompt, attended)
            leave_queue(w, i, m, p)
            m.admitted += 1
            q.order = m.admitted
            if q.status == MOVED:
                _join(w, i, m, kind, r)
                budget -= 1
                continue
            if q.preempted == 0:
                q.wait_s = m.now_s - q.reach_s
            m.reserved += need
            m.filling += 1
            done = reuse(w, i, r) if w.shelves.shape[0] > 0 else 0
            more, seen = _chunk(w, m, r, done, budget - prompt)
            prompt += more
            attended += seen
    return _fly(w, m, kind, prompt, attended)


@inlined
def _join(w: Any, i: int, m: Any, kind: Any, r: int) -> None:
    """A request that comes with its KV memory decodes from this step on."""
    q = w.requests[r]
    q.status = WAITING
    if kind.whole == 1:
        m.reserved += q.input + q.output + kind.charge
    m.context += q.input + 1
    m.batch += 1
    push(w.heaps[i], m.batch - 1, ((m.steps + q.output - 1) << 32) | r)


@inlined
def _chunk(w: Any, m: Any, r: int, done: int, budget: int) -> tuple[int, int]:
    """Give the prompt of ``r`` its part of the step: tokens, and tokens that they attend to."""
    q = w.requests[r]
    chunk = min(budget, q.input + q.generated - done)
    if done + chunk == q.input + q.generated:
        q.next = m.landing
        m.landing = r
        m.partial = -1
    else:
        m.partial = r
        m.partial_done = done + chunk
    return chunk, chunk * done + chunk * (chunk + 1) // 2


@inlined
def _fly(w: Any, m: Any, kind: Any, prompt: int, attended: int) -> bool:
    if prompt == 0:
        return False
    time_s, joules = 0.0, 0.0
    for lane in range(3):
        cost = lane_cost(w, m, kind, lane, prompt, attended)
        if lane < 2:
            time_s = max(time_s, cost)
        else:
            joules = cost
    time_s = max(time_s, joules * m.per_watt)
    alone = w.table[m.kind, m.batch, 2] + kind.context[2] * m.context
    empty = w.table[m.kind, 0, 2]
    m.fixed += empty
    m.decode += alone - empty
    m.prefill += joules - alone
    m.busy_s += time_s
    pay(w, m, m.now_s, m.now_s + time_s, joules + kind.busy_watts * time_s)
    m.end_s = m.now_s + time_s
    return True


@inlined
def land(w: Any, i: int, m: Any, kind: Any) -> None:
    """End of a step with prompts: its tokens, and its new decoding requests.

    One whose only token this was leaves with those that decoded, in `leaving.complete`.
    """
    m.now_s = m.end_s
    m.end_s = math.inf
    m.steps += 1
    m.context += m.batch
    if w.shelves.shape[0] > 0:
        keep_landing(w, i)
    r = m.landing
    m.landing = -1
    while r >= 0:
        q = w.requests[r]
        following = q.next
        if math.isnan(q.first_s):
            q.first_s = m.now_s
        m.filling -= 1
        if kind.whole == 0:
            m.reserved -= q.input + q.generated + kind.charge
        left = q.output - q.generated - 1
        if left > 0 and kind.role == PREFILL:
            move(w, m, kind, r)
            r = following
            continue
        m.context += q.input + q.generated + 1
        m.batch += 1
        push(w.heaps[i], m.batch - 1, ((m.steps + left) << 32) | r)
        r = following


@kernel
def preempt(w: Any, i: int, m: Any, kind: Any) -> None:
    """Take memory back from the requests admitted last until the rest fits."""
    heap = w.heaps[i]
    while held(m, kind) > kind.capacity:
        r = m.partial
        if r >= 0:
            q = w.requests[r]
            m.partial = -1
            m.filling -= 1
            m.reserved -= q.input + q.generated + kind.charge
        else:
            place = 0
            for j in range(1, m.batch):
                if w.requests[heap[j] & LOW].order > w.requests[heap[place] & LOW].order:
                    place = j
            r = heap[place] & LOW
            q = w.requests[r]
            q.generated = q.output - ((heap[place] >> 32) - m.steps)
            m.context -= q.input + q.generated
            remove(heap, m.batch, place)
            m.batch -= 1
        q.preempted += 1
        return_to_queue(w, i, m, r)
