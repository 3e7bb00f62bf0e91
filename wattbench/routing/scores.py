"""What the router expects of a request on a machine, compiled: time, energy, use of the cap.

Estimates from what the router sees, its machines' step models and the guessed length of the answer:
B' = min(n + 1, max_batch) requests at once, n outstanding, whose contexts are B'/(n + 1) of the
tokens outstanding. On a prefill machine the answer is of one token, and the prompts ahead take as
long per token as its own; on a decode machine there is no prompt.
"""

from __future__ import annotations

from typing import Any

from wattbench.routing.compiled import inlined
from wattbench.routing.layout import DECODE, PREFILL, SEGMENTS
from wattbench.routing.leaving import guessed


@inlined
def asleep(m: Any, kind: Any, now_s: float) -> bool:
    """Whether a machine with nothing to do sleeps by now."""
    return m.outstanding == 0 and now_s - m.now_s > kind.sleep_after_s


@inlined
def _per_watt(w: Any, m: Any) -> float:
    """Of the machine's cap at the moment of the decision; its own may be of its last boundary."""
    return w.shares[m.site, m.kind, w.counts[SEGMENTS + m.site]]


@inlined
def _lane(w: Any, m: Any, kind: Any, lane: int, batch: int, context: float) -> float:
    return w.table[m.kind, batch, lane] + kind.context[lane] * context


@inlined
def step_s(w: Any, m: Any, kind: Any, batch: int, context: float) -> float:
    """A decode step's time, its cap obeyed."""
    free_s = max(_lane(w, m, kind, 0, batch, context), _lane(w, m, kind, 1, batch, context))
    return max(free_s, _lane(w, m, kind, 2, batch, context) * _per_watt(w, m))


@inlined
def tokens_cost(w: Any, k: int, lane: int, tokens: float) -> float:
    """F of a lane, by its knots."""
    curve = w.knots[k, lane]
    j, beyond = 0, curve.shape[0]
    while j + 1 < beyond:
        middle = (j + beyond) >> 1
        if curve[middle, 0] <= tokens:
            j = middle
        else:
            beyond = middle
    return curve[j, 1] + curve[j, 2] * max(0.0, tokens - curve[j, 0])


@inlined
def prompt_cost(w: Any, m: Any, kind: Any, q: Any, lane: int) -> float:
    """A lane's value for the whole prompt as one step of its own."""
    attended = 0.5 * q.input * (q.input + 1.0)
    return tokens_cost(w, m.kind, lane, float(q.input)) + kind.attended[lane] * attended


@inlined
def _prompt_s(w: Any, m: Any, kind: Any, q: Any) -> float:
    if kind.role == DECODE:
        return 0.0
    free_s = max(prompt_cost(w, m, kind, q, 0), prompt_cost(w, m, kind, q, 1))
    return max(free_s, prompt_cost(w, m, kind, q, 2) * _per_watt(w, m))


@inlined
def _pace_s(w: Any, m: Any, kind: Any, q: Any) -> float:
    """A step with the request among the others."""
    there = m.outstanding + 1
    batch = min(there, kind.max_batch)
    context = (m.load + q.input + 0.5 * guessed(kind, q)) * batch / there
    return step_s(w, m, kind, batch, context)


@inlined
def first_token_s(w: Any, m: Any, kind: Any, q: Any) -> float:
    """Expected TTFT: wake-up, those ahead of it, its prompt."""
    wait_s = _prompt_s(w, m, kind, q)
    if asleep(m, kind, q.reach_s):
        wait_s += kind.wake_s
    over = m.outstanding + 1 - kind.max_batch
    if kind.role == PREFILL:
        wait_s += m.load / q.input * _prompt_s(w, m, kind, q)
    elif over > 0:
        wait_s += over / kind.max_batch * q.guess * _pace_s(w, m, kind, q)
    return wait_s


@inlined
def latency_s(w: Any, m: Any, kind: Any, q: Any) -> float:
    """Expected end-to-end latency."""
    return first_token_s(w, m, kind, q) + (guessed(kind, q) - 1) * _pace_s(w, m, kind, q)


@inlined
def cap_use(w: Any, m: Any, kind: Any) -> float:
    """Share of the room under its cap that the machine would use with one request more."""
    batch = min(m.outstanding + 1, kind.max_batch)
    context = float(m.load) * batch / (m.outstanding + 1)
    free_s = max(_lane(w, m, kind, 0, batch, context), _lane(w, m, kind, 1, batch, context))
    return _lane(w, m, kind, 2, batch, context) * _per_watt(w, m) / free_s


@inlined
def marginal_joules(w: Any, m: Any, kind: Any, q: Any) -> float:
    """Energy that the request adds to what the machine draws anyway.

    Its prompt's and its tokens' own, the time that it adds to the steps of the others at what a
    busy machine draws above an idle one, and the wake-up.
    """
    others = min(m.outstanding, kind.max_batch - 1)
    there = max(1, m.outstanding)
    context = float(m.load) * others / there
    own, more = q.input + 0.5 * guessed(kind, q), guessed(kind, q) - 1
    longer_s = step_s(w, m, kind, others + 1, context + own)
    joules = _lane(w, m, kind, 2, others + 1, context + own)
    prompt_s, prompt = _prompt_s(w, m, kind, q), prompt_cost(w, m, kind, q, 2)
    if others > 0:
        longer_s -= step_s(w, m, kind, others, context)
        joules -= _lane(w, m, kind, 2, others, context)
        prompt -= w.table[m.kind, 0, 2]
    if kind.role == DECODE:
        prompt = 0.0
    spent_s = prompt_s + more * longer_s
    added = prompt + more * joules + (kind.busy_watts - kind.idle_watts) * spent_s
    if asleep(m, kind, q.reach_s):
        added += kind.wake_joules
    return added
